"""What a person asks of models and pictures in the app, a notebook or a saved view, and how it is answered."""
