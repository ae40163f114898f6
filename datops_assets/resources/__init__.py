"""How to open things: the warehouse and the server behind it. Drivers are imported on first use."""
