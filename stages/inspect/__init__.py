"""Stage folder `inspect`: tell what is in a checkpoint of any writer, and how two differ."""
