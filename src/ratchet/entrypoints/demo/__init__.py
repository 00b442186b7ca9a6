"""The demo: the whole loop, told in three acts with users playing all the while."""
