"""What the project is made with: nothing here is installed with the package."""
