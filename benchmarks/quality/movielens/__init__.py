"""MovieLens: the published folds, leave one out, by time, whole-catalogue lists."""
