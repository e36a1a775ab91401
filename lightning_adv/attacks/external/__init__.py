"""Attacks of other packages, AutoAttack and Foolbox, with the promises of this one."""
