"""What a person is told of without looking: a failed job, a spent budget, a published version.

`events` says what there is to tell, `delivery` tells it once, one file for each kind of target
carries it there. When something is worth telling is for the layers above to say.
"""
