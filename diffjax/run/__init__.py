"""What the scripts share: configs, workdirs, weights, draws, flags and how a script begins."""
