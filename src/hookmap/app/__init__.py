"""The server of the interface: it asks the explorer and sends what it says, and computes nothing itself."""
