"""The kinds of dataset that come with presswork: one file each."""
