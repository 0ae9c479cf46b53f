"""The former stack: Django REST framework, as its own documentation has one write such a service."""
