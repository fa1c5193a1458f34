"""The tree's own test cases, run by dfregress(8): a check for each line of its runlist."""
