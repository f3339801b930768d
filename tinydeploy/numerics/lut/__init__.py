"""Turn real functions into small tables, and tables into integers that hardware evaluates."""
