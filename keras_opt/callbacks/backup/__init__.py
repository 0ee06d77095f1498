"""What BackupAndRestore saves, where, and how it is found again."""
