"""What algorithm does a predictor carry out? Any callable of a protocol, compared with every closed form.

`subject` loads a predictor and checks its contract, `settings` draws the prompts it is asked, `algorithms` lists what
it may be doing, `comparison` measures how far it is from each, and `presentation` shows the outcome.
"""
