"""What runs on Ray: searches and multi-worker training. Nothing outside this folder imports Ray."""
