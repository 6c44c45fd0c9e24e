"""Its revisions, one file each."""
