"""What layers a model has, how they lay out their grids, and which is best for a heatmap."""
