"""Parts that several systems are built from. A paper is a short builder over them (`train.models`)."""
