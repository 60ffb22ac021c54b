"""What removes whole blocks: their worth, the plan of their removal, the record of it."""
