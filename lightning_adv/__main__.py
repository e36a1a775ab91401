"""``python -m lightning_adv`` is ``lightning-adv``."""

from lightning_adv.cli import main

if __name__ == "__main__":
    main()
