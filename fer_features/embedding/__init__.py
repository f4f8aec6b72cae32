"""The one pass: a frozen network from pixels to embeddings, and the file that keeps them."""
