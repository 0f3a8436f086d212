"""What several inputs need."""
