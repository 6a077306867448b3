"""What a vision-language model answered, and its page."""

from hookmap.answers.answer import Answer, AnswerWord

__all__ = ["Answer", "AnswerWord"]
