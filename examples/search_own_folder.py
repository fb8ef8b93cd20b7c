"""Searches a small U-Net on a folder of your own, with images/ and masks/ of equal names.

    python examples/search_own_folder.py FOLDER STUDIES [TRIALS]

Ctrl-C keeps what was finished; `fissura search --resume --storage STUDIES` goes on.
"""

import sys

import fissura


def main(folder: str, studies: str, trials: str = "8") -> None:
    """Checks the folder, searches, and prints the trials and the ranking."""
    data = f"folder:{folder}"
    print(fissura.check(data))  # what is wrong with the images, before hours go into them
    result = fissura.search("small_unet", data=data, storage=studies, trials=int(trials), say=print)
    print(result)
    print(result.to_pandas())
    print(fissura.leaderboard(studies))


if __name__ == "__main__":
    main(*sys.argv[1:])
