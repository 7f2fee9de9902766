"""Text: captions in their normal form, and the vocabulary that maps them to token ids.

Convention: a caption is normalised before anything else. Only the tokenizer uses SentencePiece.
"""
