"""Room of the report stage: a study on one page, which is read without a network.

finding says the result in a sentence and lists the checks, charts makes the plots that move, page
puts all together; captions checks Snakemake's own report.
"""
