"""What is decided from scores: pseudo labels, prevalence, correction of priors."""
