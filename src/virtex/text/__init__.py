"""Text: captions in their normal form, and the vocabulary that turns them into token ids.

Convention: a caption is normalised first, then everything else happens to it. Only the tokenizer
knows SentencePiece.
"""
