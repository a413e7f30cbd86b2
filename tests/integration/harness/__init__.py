"""The whole chain as real processes: an exchange, two ingestors, a datalake; and its comparison with the truth."""
