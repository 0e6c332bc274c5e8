"""The language-model side of presswork: one folder a stage, and the vocabulary they share."""
