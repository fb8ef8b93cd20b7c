"""What a run leaves behind: its files and their digests, its manifest, its scores as one Parquet file."""
