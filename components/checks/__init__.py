"""`--check`: what can be found wrong before anything is started, and the plan of what would happen.

Nothing is trained or converted, and no Ray is started; the cluster that `RAY_ADDRESS` names is asked what it
has.
"""
