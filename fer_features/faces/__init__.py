"""What goes in: faces as pixel arrays, read from CSV files and image folders."""
