"""What datops keeps in PostgreSQL: names, the catalogue's migrations, table identity."""
