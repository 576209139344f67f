"""Recipes: for a model and a size, the types of tensors that lose least, by measurement."""
