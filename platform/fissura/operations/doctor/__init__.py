"""`fissura doctor`: collects facts from each node, checks them, and reports findings with remedies."""
