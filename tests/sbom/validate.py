"""Validates a CycloneDX 1.6 bill of materials against its schema, strictly: python validate.py FILE."""

import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

with open(sys.argv[1], encoding="utf-8") as bill:
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill.read())
if error:
    sys.exit(str(error))
print("valid")
