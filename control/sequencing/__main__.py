"""`python -m control.sequencing FOLDER`; see `program`."""

from control.sequencing.program import main

raise SystemExit(main())
