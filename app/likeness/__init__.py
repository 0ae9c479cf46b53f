"""How alike two values of a field are, such as two names, dates or addresses."""
