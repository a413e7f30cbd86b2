"""How ``logical_backup`` makes dumps that are whole, and keeps knowing that they are."""
