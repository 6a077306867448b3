"""What a vision-language model answered, and its page."""

from hookmap.answers.answer import Answer
from hookmap.answers.word import AnswerWord

__all__ = ["Answer", "AnswerWord"]
