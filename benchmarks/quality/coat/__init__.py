"""Coat: does debiasing help the rating head?"""
