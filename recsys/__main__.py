"""`python -m recsys`: the command line where its script is not on the path."""

from recsys.cli import main

if __name__ == "__main__":
    main()
