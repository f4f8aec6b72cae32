"""What a person reads: figures and pages made from results alone."""
