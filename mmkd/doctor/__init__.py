"""What a distillation looks like before it is trained for long, and what to change."""

from mmkd.doctor.advice import Advice, advise
from mmkd.doctor.examination import Costs, Examination, TeacherFinding, TermFinding

__all__ = ["Advice", "Costs", "Examination", "TeacherFinding", "TermFinding", "advise"]
