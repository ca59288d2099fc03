"""`recsys bench inside`: what orders the rows of a list, the user's part of it, what each input adds."""
