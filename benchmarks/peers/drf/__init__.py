"""The former stack: Django REST framework, written as its documentation recommends."""
