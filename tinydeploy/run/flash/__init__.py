"""Turn a firmware file into firmware on a board, by the programs that can write there."""
