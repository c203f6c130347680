"""What a careful statistician would ask of a model: intervals, calibration, operating points, where it fails."""
