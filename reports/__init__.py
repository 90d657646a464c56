"""Records go in; what people read comes out. Reports are pure: same records, same bytes."""
