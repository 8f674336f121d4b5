"""What things cost: counted work and memory of training steps, and measured speeds. See README.md."""
